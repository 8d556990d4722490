files.directory { mode = "755" }
