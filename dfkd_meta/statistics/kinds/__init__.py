"""One file per statistic; every module here is imported when the first one is looked up."""
