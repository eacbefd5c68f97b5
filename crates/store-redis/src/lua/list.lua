-- Reads records along one of the sorted lists, as much as is wanted, but a bounded amount of work in one call.
--
-- KEYS[1]: `<base>store`. ARGV: the list, where to begin, where to end (as for ZRANGE BYLEX), 1 to go from the end, how
-- many are wanted, then a kind, or an empty text for the list of what is due, which has several; then for group and
-- status whether they are asked for, and which.
-- Answers {the last member that was looked at, or an empty text if there are no more; kind:id and value of each}.

local call, sub = redis.call, string.sub
-- Members looked at, and bytes answered, in one call: some milliseconds.
local SCANNED_MAX, BYTES_MAX = 1000, 4000000

local base = sub(KEYS[1], 1, -6)
local list, from, to, reverse, wanted = base .. ARGV[1], ARGV[2], ARGV[3], ARGV[4] == '1', tonumber(ARGV[5])
local kind = ARGV[6]
local has_group, group, has_status, status = ARGV[7] == '1', ARGV[8], ARGV[9] == '1', ARGV[10]

local function fits(value)
  local group_bytes = struct.unpack('>I4', value, 27)
  if has_group and sub(value, 31, 30 + group_bytes) ~= group then return false end
  if not has_status then return true end
  local status_bytes = struct.unpack('>I4', value, 31 + group_bytes)
  return sub(value, 35 + group_bytes, 34 + group_bytes + status_bytes) == status
end

local command = reverse and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'
local count = math.min(SCANNED_MAX, (has_group or has_status) and SCANNED_MAX or wanted)
local members = call(command, list, from, to, 'LIMIT', 0, count)
local answer, bytes = { #members < count and '' or members[#members] }, 0
for at, member in ipairs(members) do
  local key
  if kind == '' then
    local zero = string.find(member, '\0', 9, true)
    key = sub(member, 9, zero - 1) .. ':' .. sub(member, zero + 1)
  else
    key = kind .. ':' .. sub(member, 9)
  end
  local value = call('GET', base .. 'record:' .. key)
  if not value then return redis.error_reply('MISSING a list names a record that is not there') end
  if fits(value) then
    answer[#answer + 1] = key
    answer[#answer + 1] = value
    bytes = bytes + #value
    if #answer > 2 * wanted or bytes > BYTES_MAX then
      if at < #members then answer[1] = member end
      break
    end
  end
end
return answer
