file.directory { path = "never" }
