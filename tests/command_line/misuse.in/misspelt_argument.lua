files.directory { path = "never" }
files.directory { pth = "never" }
