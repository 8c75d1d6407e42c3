"""`python -m cli`, for processes that must run with exactly this interpreter."""

from cli.app import main

if __name__ == "__main__":
    main()
