-- Gives a node's number up, if it is still the node's.
--
-- KEYS[1]: `<base>store`; all other keys begin with the same base. ARGV: the number, the name of the process.
local base = string.sub(KEYS[1], 1, -6)
local lease = base .. 'lease:' .. ARGV[1]
if redis.call('GET', lease) ~= ARGV[2] then return 0 end
redis.call('DEL', lease)
redis.call('HDEL', base .. 'nodes', ARGV[1])
return 1
