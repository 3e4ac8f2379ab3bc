-- Put before every other script: the clock and the key names. What else they share stands in `parts`:
-- `-- include NAME` is where a part's text comes in, since each function costs as it is defined.
-- Keys are built here because one Redis, never a cluster, holds the control plane.
local prefix = ARGV[1]
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local HOUR = 3600000
-- When to ask again after a refusal that names no time, or one that a person may take back.
local UNHELPED = 60000

local function key(kind, name)
  if name then return prefix .. kind .. ':' .. name end
  return prefix .. kind
end

local function ms(text) return tonumber(text) or 0 end
