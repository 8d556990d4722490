files.directory { path = "never", recursive = "yes" }
