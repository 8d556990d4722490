files.file { path = "second", present = false }
