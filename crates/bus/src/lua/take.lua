-- Takes a number for a node, or keeps it. 0: it is somebody else's. 1: it was ours. 2: it was nobody's, and is ours now.
--
-- KEYS[1]: `<base>store`; all other keys begin with the same base. ARGV: the number, the name of the process, the lease
-- in milliseconds, the registration.
local base = string.sub(KEYS[1], 1, -6)
local lease = base .. 'lease:' .. ARGV[1]
local holder = redis.call('GET', lease)
if holder and holder ~= ARGV[2] then return 0 end
redis.call('SET', lease, ARGV[2], 'PX', ARGV[3])
redis.call('HSET', base .. 'nodes', ARGV[1], ARGV[4])
return holder and 1 or 2
