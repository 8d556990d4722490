apt.packages { "nginx" }
