files.line { name = "Greet", path = "notes", line = "hello" }
