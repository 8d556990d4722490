files.directory { path = "never" }
files.tempalte { src = "a", dest = "b" }
