"""Analysis of trained networks: ambiguity, statistics, figures."""

from __future__ import annotations

import sys

if __name__ == "analysis":
    # In a checkout `import analysis` finds this folder; hand out ctxrnn.analysis, not a copy.
    import ctxrnn.analysis

    sys.modules[__name__] = ctxrnn.analysis
else:
    from .ambiguity import ambiguity_curve as ambiguity_curve
    from .ambiguity import ambiguity_sweep as ambiguity_sweep
    from .ambiguity import critical_noise as critical_noise
    from .ambiguity import lambda_50 as lambda_50
    from .ambiguity import mixed_context as mixed_context
    from .ambiguity import relative_area as relative_area
    from .ambiguity import robustness_area as robustness_area
    from .attractors import attractor_sets as attractor_sets
    from .choices import choice_shares as choice_shares
    from .choices import context_effect as context_effect
    from .choices import crossing as crossing
    from .choices import effect_matched_levels as effect_matched_levels
    from .clusters import lesion_clusters as lesion_clusters
    from .clusters import lesioned as lesioned
    from .clusters import normalised_variance as normalised_variance
    from .clusters import task_variance as task_variance
    from .clusters import unit_clusters as unit_clusters
    from .continuation import Bifurcation as Bifurcation
    from .continuation import Branch as Branch
    from .continuation import Branches as Branches
    from .continuation import follow_fixed_points as follow_fixed_points
    from .corruption import CORRUPTIONS as CORRUPTIONS
    from .corruption import Corruption as Corruption
    from .corruption import corrupted as corrupted
    from .corruption import evidence_strength as evidence_strength
    from .corruption import ou_noise as ou_noise
    from .crossings import CrossingComparison as CrossingComparison
    from .crossings import compare_crossings as compare_crossings
    from .dsa import DelayEmbedding as DelayEmbedding
    from .dsa import dsa_distance as dsa_distance
    from .dsa import dsa_embedding as dsa_embedding
    from .dsa import dsa_matrix as dsa_matrix
    from .fields import ContextPath as ContextPath
    from .fields import FunctionField as FunctionField
    from .fields import NetworkField as NetworkField
    from .fields import VectorField as VectorField
    from .fields import module_field as module_field
    from .fields import vector_field as vector_field
    from .fixed_points import FixedPoints as FixedPoints
    from .fixed_points import find_fixed_points as find_fixed_points
    from .fixed_points import visited_states as visited_states
    from .flow import flow_on_plane as flow_on_plane
    from .flow import state_dependence as state_dependence
    from .linearisation import Modes as Modes
    from .linearisation import eigenvalues as eigenvalues
    from .linearisation import henrici_index as henrici_index
    from .linearisation import modes as modes
    from .linearisation import modes_of as modes_of
    from .linearisation import numerical_abscissa as numerical_abscissa
    from .linearisation import transient_growth as transient_growth
    from .packing import OptimisationGuard as OptimisationGuard
    from .packing import best_rate as best_rate
    from .packing import capacity as capacity
    from .packing import capacity_synergy as capacity_synergy
    from .packing import effective_number as effective_number
    from .packing import next_size as next_size
    from .packing import optimisation_guard as optimisation_guard
    from .packing import packing_area as packing_area
    from .packing import packing_exponent as packing_exponent
    from .packing import size_needed as size_needed
    from .packing import solved_fraction as solved_fraction
    from .pathways import conflicting_contexts as conflicting_contexts
    from .pathways import cross_context as cross_context
    from .pathways import frozen_pathway as frozen_pathway
    from .psychometric import Psychometric as Psychometric
    from .psychometric import choice_table as choice_table
    from .psychometric import fit_psychometric as fit_psychometric
    from .similarity import MatrixCorrelation as MatrixCorrelation
    from .similarity import similarity_of_tasks as similarity_of_tasks
    from .statistics import Adjusted as Adjusted
    from .statistics import Interval as Interval
    from .statistics import Paired as Paired
    from .statistics import Synergy as Synergy
    from .statistics import adjusted_difference as adjusted_difference
    from .statistics import bootstrap_interval as bootstrap_interval
    from .statistics import mean_interval as mean_interval
    from .statistics import paired as paired
    from .statistics import paired_difference as paired_difference
    from .statistics import sign_flip_p as sign_flip_p
    from .statistics import synergy as synergy
    from .subspaces import PCA as PCA
    from .subspaces import alignment_index as alignment_index
    from .subspaces import captured_variance as captured_variance
    from .subspaces import centroid_distances as centroid_distances
    from .subspaces import compare_subspaces as compare_subspaces
    from .subspaces import fit_pca as fit_pca
    from .subspaces import linear_cka as linear_cka
    from .subspaces import participation_ratio as participation_ratio
    from .subspaces import principal_angles as principal_angles
    from .subspaces import procrustes_distance as procrustes_distance
    from .subspaces import tangling as tangling
    from .switching import context_noise as context_noise
    from .switching import filtered_noise_sweep as filtered_noise_sweep
    from .switching import filtered_noise_variance as filtered_noise_variance
    from .switching import recovery_latency as recovery_latency
    from .switching import switch_cost as switch_cost
    from .switching import switch_sweep as switch_sweep
    from .switching import switched_context as switched_context
    from .weights import ContextEffects as ContextEffects
    from .weights import EffectiveRank as EffectiveRank
    from .weights import ModulationRank as ModulationRank
    from .weights import context_effects as context_effects
    from .weights import context_similarity as context_similarity
    from .weights import effective_rank as effective_rank
    from .weights import modulation_rank as modulation_rank
    from .weights import readout_alignment as readout_alignment
