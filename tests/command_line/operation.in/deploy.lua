print("hello from " .. host.name)
files.file { name = "First", path = "first", present = false }
