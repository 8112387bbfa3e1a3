"""`python -m ctxrnn` is the command `ctxrnn`."""

from ctxrnn._cli import main

if __name__ == "__main__":
    raise SystemExit(main())
