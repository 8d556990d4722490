include("tasks/nowhere.lua")
