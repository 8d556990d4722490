files.template { src = "page.j2", dest = "never", vars = { title = "x" } }
