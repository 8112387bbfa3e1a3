"""`python -m ctxrnn` is the command `ctxrnn`."""

from ctxrnn._cli import main

raise SystemExit(main())
