"""`python -m distk`, which is also what `torchrun -m distk` starts."""

from distk.cli import main

if __name__ == "__main__":
    main()
