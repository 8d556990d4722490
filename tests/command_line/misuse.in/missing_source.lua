files.put { src = "nowhere.txt", dest = "never" }
