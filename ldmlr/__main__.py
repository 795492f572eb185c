"""``python -m ldmlr``: the ``ldmlr`` command, of this very Python."""

if __name__ == "__main__":
    from ldmlr_cli.main import main

    main()
