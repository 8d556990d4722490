-- Builds a small site in a folder under the working directory. It runs as any user and needs nothing:
--
--     infra inventories/local.lua deploys/quickstart.lua --dry     what would change
--     infra inventories/local.lua deploys/quickstart.lua           change it
--
-- Run it again: nothing is left to do.

local folder = host:get("folder", "quickstart-site")

deploy("Site", function()
  files.directory { name = "Make the folder", path = folder, mode = "755" }

  local page = files.template {
    name = "Write the page",
    src  = "templates/index.html.j2",
    dest = folder .. "/index.html",
    mode = "644",
    vars = { title = host:get("title", "It works"), pages = { "about", "contact" } },
  }

  files.line {
    name = "Keep crawlers out of the drafts",
    path = folder .. "/robots.txt",
    line = "Disallow: /drafts",
  }

  -- Runs only where the page changed, which the plan knows beforehand.
  server.shell {
    name     = "Count the words of the page",
    commands = { sh("wc -w < {} > {}", folder .. "/index.html", folder .. "/words.txt") },
    _if      = page.did_change,
  }
end)
