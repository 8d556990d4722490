-- nginx with one site of its own, on Debian:
--
--     infra inventories/fleet.lua deploys/nginx.lua --user root

local root = "/srv/www/hello"

deploy("nginx", function()
  apt.packages {
    name       = "Install",
    packages   = { host:get("nginx_package", "nginx-light") },
    update     = true,
    cache_time = 3600,
  }

  files.directory { name = "Folder of the site", path = root, mode = "755" }

  files.put {
    name    = "Front page",
    content = host.data.greeting .. " from " .. host.name .. "\n",
    dest    = root .. "/index.html",
    mode    = "644",
  }

  local site = files.template {
    name = "Site",
    src  = "templates/nginx-site.conf.j2",
    dest = "/etc/nginx/sites-available/hello",
    mode = "644",
    vars = { port = host.data.http_port, root = root, canary = host:get("role") == "canary" },
  }

  local enabled = files.link {
    name   = "Switch the site on",
    path   = "/etc/nginx/sites-enabled/hello",
    target = "/etc/nginx/sites-available/hello",
  }

  local default = files.link { name = "Switch the default site off", path = "/etc/nginx/sites-enabled/default", present = false }

  local checked = server.shell {
    name     = "Check the configuration",
    commands = { "nginx -t" },
    _if      = any_changed(site, enabled, default),
  }

  systemd.service {
    name     = "Run",
    service  = "nginx",
    running  = true,
    enabled  = true,
    reloaded = any_changed(checked),
  }
end)
