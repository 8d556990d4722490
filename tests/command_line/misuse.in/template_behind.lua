files.directory { path = "never" }
files.template { src = "page.j2", dest = "never/page" }
