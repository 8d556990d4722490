app_servers = { "app-[1-3]", { "app-4", role = "canary" }, data = { http_port = 80 } }
db_servers  = { "db-1" }
production  = { app_servers, db_servers, data = { env = "prod" } }
here        = { "@local" }
