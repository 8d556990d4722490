files.template { src = "broken.j2", dest = "never" }
