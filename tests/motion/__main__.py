"""`python -m tests.motion`."""

from tests.motion.train import main

if __name__ == "__main__":
    main()
