"""``python -m dfkd_meta_cli``."""

from dfkd_meta_cli.main import main

main()
