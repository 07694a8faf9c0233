"""The command line of dfkd-meta, installed as ``dfkd_meta_cli``: one file per verb."""
