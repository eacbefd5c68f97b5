-- The nodes whose leases hold: number and registration of each. Forgets the others.
--
-- KEYS[1]: `<base>store`; all other keys begin with the same base.
local base = string.sub(KEYS[1], 1, -6)
local all = redis.call('HGETALL', base .. 'nodes')
local live = {}
for at = 1, #all, 2 do
  if redis.call('EXISTS', base .. 'lease:' .. all[at]) == 1 then
    live[#live + 1] = all[at]
    live[#live + 1] = all[at + 1]
  else
    redis.call('HDEL', base .. 'nodes', all[at])
  end
end
return live
