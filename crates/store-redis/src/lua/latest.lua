-- Reads the latest of each name and key of a room, in the order in which they came, a bounded amount in one call.
--
-- KEYS[1]: `<base>store`. ARGV: the room, the order after which to begin, how many at most.
-- Answers {the newest order of the store; field and value of each}.

local call = redis.call
local BYTES_MAX = 4000000

local base = string.sub(KEYS[1], 1, -6)
local answer, bytes = { call('HGET', KEYS[1], 'order') or '0' }, 0
local orders, values = base .. 'latest-order:' .. ARGV[1], base .. 'latest:' .. ARGV[1]
for _, field in ipairs(call('ZRANGEBYSCORE', orders, '(' .. ARGV[2], '+inf', 'LIMIT', 0, ARGV[3])) do
  local value = call('HGET', values, field)
  -- A key that was evicted: what is left is still the latest.
  if value then
    answer[#answer + 1] = field
    answer[#answer + 1] = value
    bytes = bytes + #value
    if bytes > BYTES_MAX then break end
  end
end
return answer
