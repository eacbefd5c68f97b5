-- Does a part of a batch: commits in order, each whole or not at all, then pruning. One step for everybody else.
--
-- KEYS[1]: `<base>store`; all other keys begin with the same base, hash tag included.
-- ARGV[1]: numbers as one msgpack list, ARGV[2]: who writes, ARGV[3...]: texts; `call.rs` writes both in the order in
-- which they are taken here. Answers {newest order, epochs of the rooms, outcomes} as msgpack; `call.rs` reads it.
--
-- Redis undoes nothing of a script that fails half-way. So what the call is about is read before anything is written:
-- keys of a wrong type show then, and a server that lacks memory or may not write refuses the first write.

local call, pack, unpack_number, format = redis.call, struct.pack, struct.unpack, string.format
local sub, concat = string.sub, table.concat

local DAY = 24 * 60 * 60 * 1000
-- Orders that are passed over when the database turns out to have lost some: more than other writers can be ahead.
local LEAP = 1000000
-- Rows below a log's beginning that may wait until they are deleted together.
local LEFTOVERS_MAX = 64
-- Events looked at for pruning in one call, over all rooms: some 10 ms.
local budget = 5000
-- Rooms swept in one call.
local SWEPT_MAX = 64
-- Idempotency keys deleted in one call: twice as many as it may add.
local KEYS_DELETED_MAX = 1000
-- Beyond this a double is no exact number of milliseconds; nothing expires then.
local NUMBER_MAX = 9007199254740992
-- How long the last answer to a writer is kept, in milliseconds: an hour. It is asked for within seconds.
local ANSWER_AGE = 3600000

local store = KEYS[1]
local base = sub(store, 1, -6)
local numbers, number_at, text_at = cmsgpack.unpack(ARGV[1]), 0, 2

local function number()
  number_at = number_at + 1
  return numbers[number_at]
end

local function text()
  text_at = text_at + 1
  return ARGV[text_at]
end

-- There is no such key. While a Cluster moves our slot, this fails for what is not there, and so nothing is done to a
-- part of the keys.
call('EXISTS', base .. 'nothing')

-- The writer's turn: what was done is not done again, and what was given up is not done late.

local now, turn, known = number(), number(), number()
local writer = base .. 'writer:' .. ARGV[2]
local before = call('GET', writer)
if before then
  local last = unpack_number('>I8', before)
  if last == turn then
    -- A write, so that whoever waits for replicas afterwards waits for what was done then.
    call('PEXPIRE', writer, ANSWER_AGE)
    return sub(before, 9)
  end
  if last > turn then return redis.error_reply('STALE this call was given up, and a later one was done') end
end

local held = call('HMGET', store, 'order', 'lost', 'era')
local order, lost, era = tonumber(held[1]) or 0, tonumber(held[2]) or 0, tonumber(held[3]) or 0
if known > order then
  -- This writer was told of events that are not here: a failover has lost them, or somebody emptied the database. No
  -- order may come twice, and no log may go on as if nothing were missing.
  order = known + LEAP
  lost = order
  era = era + 1
end

-- Rooms.

-- What a room's value has, in this order: one text is read and written four times as fast as a hash of so many fields.
-- `page.lua`, `heads.lua` and `tail.lua` count on the places.
local FIELDS = {
  'epoch', 'era', 'first', 'last', 'rows', 'through', 'pruned_order', 'pruned_through', 'age', 'expires', 'oldest_at',
  'oldest_order', 'oldest_through', 'newest', 'latest', 'latest_bytes', 'latest_newest',
}
local heads = {}

local function bring(name, candidate, uses_log, uses_latest)
  local head = heads[name]
  if head then return head end
  head = { name = name, candidate = candidate, log = base .. 'log:' .. name, key = base .. 'room:' .. name }
  local row = call('GET', head.key)
  row = row and cmsgpack.unpack(row) or {}
  for at, field in ipairs(FIELDS) do head[field] = row[at] or 0 end
  if head.first == 0 then head.first, head.rows = 1, 1 end
  -- Rows that somebody else took away, by evicting keys for one: what is left is no log.
  local rows = head.last + 1 - head.rows
  head.broken = (uses_log or rows > 0) and call('XLEN', head.log) ~= rows
  if uses_latest or head.latest > 0 then
    head.latest_log, head.latest_orders = base .. 'latest:' .. name, base .. 'latest-order:' .. name
    if call('HLEN', head.latest_log) ~= head.latest or call('ZCARD', head.latest_orders) ~= head.latest then
      head.latest, head.latest_bytes, head.latest_broken = 0, 0, true
    end
  end
  heads[name] = head
  return head
end

local function begin_epoch(head)
  if head.epoch ~= 0 or head.broken then call('UNLINK', head.log) end
  -- Whoever asks for what came after an order of the old epoch has missed something.
  if head.epoch ~= 0 then head.pruned_order = order - 1 end
  head.epoch, head.era, head.broken = head.candidate, era, false
  head.first, head.last, head.rows, head.through, head.pruned_through = 1, 0, 1, 0, 0
end

local function append(head, bytes, at, body)
  if head.epoch == 0 or head.era ~= era or head.broken then begin_epoch(head) end
  head.last = head.last + 1
  head.through = head.through + bytes
  head.newest = order
  call('XADD', head.log, format('%.0f-0', head.last), 'e', '\1' .. pack('>I8I8', order, head.through) .. body)
  if head.first == head.last then
    head.oldest_at, head.oldest_order, head.oldest_through = at, order, head.through
  end
end

local function put_latest(head, bytes, field, body)
  if head.latest_broken then
    call('UNLINK', head.latest_log, head.latest_orders)
    head.latest_broken = false
  end
  local replaced = call('HGET', head.latest_log, field)
  if replaced then
    head.latest_bytes = head.latest_bytes - unpack_number('>I8', replaced, 10)
  else
    head.latest = head.latest + 1
  end
  head.latest_bytes = head.latest_bytes + bytes
  head.latest_newest = order
  call('HSET', head.latest_log, field, '\1' .. pack('>I8I8', order, bytes) .. body)
  call('ZADD', head.latest_orders, order, field)
end

-- Where an event was put in one room, as answers and messages have it.
local function place(name, epoch, seq)
  return pack('>I2', #name) .. name .. pack('>I8I8', epoch, seq)
end

-- To whoever listens to a room of the envelope; `bus.rs` writes that and reads the message. Its first four bytes are
-- those of the message.
local function publish(envelope, placed, body)
  local message = sub(envelope, 1, 4) .. pack('>I8I4', order, #placed) .. concat(placed) .. sub(envelope, 5) .. body
  local count, at = unpack_number('>I4', envelope, 5)
  for _ = 1, count do
    local name
    name, at = unpack_number('>I2c0', envelope, at)
    call('SPUBLISH', base .. 'room:' .. name, message)
  end
end

-- Passes over the oldest of a log for as long as a bound is exceeded.
local function prune_log(head, events_max, bytes_max, age_max)
  local last, page, at, ahead = head.last, nil, 0, 1
  local function load_oldest()
    if head.first > last then return end
    at = at + 1
    if not page or not page[at] then
      page, at = call('XRANGE', head.log, format('%.0f-0', head.first), '+', 'COUNT', ahead), 1
      -- Large events are read one by one.
      ahead = (#page[1][2][2] < 4096) and math.min(ahead * 4, 64) or 1
    end
    local value = page[at][2][2]
    head.oldest_order, head.oldest_through, head.oldest_at = unpack_number('>I8I8I8', value, 2)
  end
  -- What the count takes is passed over at once.
  if last + 1 - head.first > events_max + 1 then
    head.first = last - events_max
    load_oldest()
  end
  while head.first <= last do
    local exceeds = last + 1 - head.first > events_max
      or head.through - head.pruned_through > bytes_max
      or now - head.oldest_at > age_max
    if not exceeds or budget <= 0 then break end
    budget = budget - 1
    head.pruned_order, head.pruned_through = head.oldest_order, head.oldest_through
    head.first = head.first + 1
    load_oldest()
  end
  local leftovers = head.first - head.rows
  if leftovers >= LEFTOVERS_MAX or (head.first > last and leftovers > 0) then
    call('XTRIM', head.log, 'MINID', format('%.0f-0', head.first))
    head.rows = head.first
  end
end

local function prune_latest(head, events_max, bytes_max, age_max)
  while head.latest > 0 do
    local field = call('ZRANGE', head.latest_orders, 0, 0)[1]
    local value = call('HGET', head.latest_log, field)
    head.latest_at = unpack_number('>I8', value, 18)
    local exceeds = head.latest > events_max or head.latest_bytes > bytes_max or now - head.latest_at > age_max
    if not exceeds or budget <= 0 then break end
    budget = budget - 1
    call('HDEL', head.latest_log, field)
    call('ZREM', head.latest_orders, field)
    head.latest = head.latest - 1
    head.latest_bytes = head.latest_bytes - unpack_number('>I8', value, 10)
  end
end

-- Prunes; when something in the room becomes too old, if ever.
local function prune(head, events_max, bytes_max, age_max)
  local oldest
  if not head.broken and head.first <= head.last then
    prune_log(head, events_max, bytes_max, age_max)
    if head.first <= head.last then oldest = head.oldest_at end
  end
  prune_latest(head, events_max, bytes_max, age_max)
  if head.latest > 0 and (not oldest or head.latest_at < oldest) then oldest = head.latest_at end
  if oldest and oldest + age_max < NUMBER_MAX then return oldest + age_max end
end

local function save(head)
  local row = {}
  for at, field in ipairs(FIELDS) do row[at] = head[field] end
  call('SET', head.key, cmsgpack.pack(row))
end

-- Records. A value is format | version | made | whether it is due | due | group | status | JSON; see `record.rs`.

-- The lists that a record is in, and its place in each.
local function places(key, value)
  local colon = string.find(key, ':', 1, true)
  local kind, id = sub(key, 1, colon - 1), sub(key, colon + 1)
  local member = sub(value, 10, 17) .. id
  local group_bytes = unpack_number('>I4', value, 27)
  local group = sub(value, 31, 30 + group_bytes)
  local status_bytes = unpack_number('>I4', value, 31 + group_bytes)
  local status = sub(value, 35 + group_bytes, 34 + group_bytes + status_bytes)
  local found = { [base .. 'kind:' .. kind] = member }
  if group ~= '' then found[base .. 'group:' .. kind .. ':' .. group] = member end
  if status ~= '' then found[base .. 'status:' .. kind .. ':' .. status] = member end
  if string.byte(value, 18) == 1 then found[base .. 'due'] = sub(value, 19, 26) .. kind .. '\0' .. id end
  return found
end

local function write_record(key, value_before, value)
  local were = value_before and places(key, value_before) or {}
  local are = value and places(key, value) or {}
  for list, member in pairs(were) do
    if are[list] ~= member then call('ZREM', list, member) end
  end
  for list, member in pairs(are) do
    if were[list] ~= member then call('ZADD', list, 0, member) end
  end
  if value then
    call('SET', base .. 'record:' .. key, value)
  elseif value_before then
    call('DEL', base .. 'record:' .. key)
  end
end

-- All records of this call by key, as they are by now; false if there is none.
local records = {}

-- Takes the changes of a commit; keys of the records and what they become, or nothing if one is not as expected.
local NONE = {}
local function check(count)
  if count == 0 then return NONE, NONE end
  local are, keys = {}, {}
  for _ = 1, count do
    local key, expected, value = text(), text(), number() == 1 and text()
    local is = are[key]
    if is == nil then
      is = records[key]
      keys[#keys + 1] = key
    end
    local version = is and sub(is, 2, 9) or ''
    if version ~= expected then return nil end
    are[key] = value
  end
  return keys, are
end

-- What the call is about.

local rooms, touched = {}, {}
for at = 1, number() do rooms[at] = bring(text(), number(), number() == 1, number() == 1) end
local retentions = {}
for at = 1, number() do retentions[at] = { number(), number(), math.min(number(), NUMBER_MAX) } end
for _ = 1, number() do
  local key = text()
  records[key] = call('GET', base .. 'record:' .. key)
end
local keys_hash, keys_at, expiry = base .. 'keys', base .. 'keys-at', base .. 'expiry'
if next(records) then call('ZCARD', base .. 'due') end
if number() == 1 then call('HLEN', keys_hash) end
local too_old, count = format('(%.0f', now - DAY), KEYS_DELETED_MAX
local old = call('ZRANGEBYSCORE', keys_at, '-inf', too_old, 'LIMIT', 0, count)
local swept = call('ZRANGEBYSCORE', expiry, '-inf', format('(%.0f', now), 'LIMIT', 0, SWEPT_MAX)
for at, name in ipairs(swept) do swept[at] = bring(name) end

local DONE, CONFLICT, REPEATED = 0, 1, 2
local LOG = 0
local outcomes = {}
local function tell(value) outcomes[#outcomes + 1] = value end

-- Takes one event; where it was put goes into `placed`, if that is wanted.
local function take_append(placed)
  local bytes, at, has_latest, has_envelope, count = number(), number(), number(), number(), number()
  local body = text()
  local field = has_latest == 1 and text()
  local envelope = has_envelope == 1 and text()
  local told = envelope and {}
  order = order + 1
  tell(order)
  if placed then placed[#placed + 1] = pack('>I4', count) end
  for _ = 1, count do
    local head, delivery, retention = rooms[number()], number(), number()
    if not head.retention then touched[#touched + 1] = head end
    head.retention = retentions[retention]
    local epoch, seq = 0, 0
    if delivery == LOG then
      append(head, bytes, at, body)
      epoch, seq = head.epoch, head.last
      tell(seq)
    else
      put_latest(head, bytes, field, body)
    end
    if placed then placed[#placed + 1] = place(head.name, epoch, seq) end
    if told then told[#told + 1] = place(head.name, epoch, seq) end
  end
  if told then publish(envelope, told, body) end
end

local function take_commit()
  local changes, appends, has_key = number(), number(), number()
  local field, answer
  if has_key == 1 then
    field, answer = text(), text()
    local kept = call('HGET', keys_hash, field)
    if kept and now - unpack_number('>I8', kept) <= DAY then
      tell(REPEATED)
      tell(kept)
      return
    end
  end
  local changed, are = check(changes)
  if not changed then
    tell(CONFLICT)
    return
  end
  tell(DONE)
  for _, key in ipairs(changed) do
    write_record(key, records[key], are[key])
    records[key] = are[key]
  end
  local placed = field and { pack('>I8', now), pack('>I4', appends) }
  for _ = 1, appends do take_append(placed) end
  if field then
    placed[#placed + 1] = answer
    call('HSET', keys_hash, field, concat(placed))
    call('ZADD', keys_at, now, field)
  end
end

local commits = number()
for _ = 1, commits do
  local numbers_end, texts_end = number(), number()
  numbers_end, texts_end = number_at + numbers_end, text_at + texts_end
  take_commit()
  -- One that was not done has not taken all that is its own.
  number_at, text_at = numbers_end, texts_end
end

-- Pruning: the rooms of this call, then others in which something has become too old, then keys.

for _, head in ipairs(touched) do
  local retention = head.retention
  local expires = prune(head, retention[1], retention[2], retention[3])
  head.age = retention[3]
  -- It may be known by an earlier time than need be: a sweep in vain costs less than an entry with every call.
  if expires and (head.expires == 0 or expires < head.expires) then
    head.expires = expires
    call('ZADD', expiry, expires, head.name)
  end
  save(head)
end
for _, head in ipairs(swept) do
  local expires = prune(head, NUMBER_MAX, NUMBER_MAX, head.age)
  if expires then
    head.expires = expires
    call('ZADD', expiry, expires, head.name)
  else
    head.expires = 0
    call('ZREM', expiry, head.name)
  end
  save(head)
end
for _, field in ipairs(old) do
  -- This call may have committed it anew.
  local kept = call('HGET', keys_hash, field)
  if not kept or now - unpack_number('>I8', kept) > DAY then
    call('HDEL', keys_hash, field)
    call('ZREM', keys_at, field)
  end
end

call('HSET', store, 'order', order, 'lost', lost, 'era', era)
local epochs = {}
for at, head in ipairs(rooms) do epochs[at] = head.epoch end
local answer = cmsgpack.pack({ order, epochs, outcomes })
call('SET', writer, pack('>I8', turn) .. answer, 'PX', ANSWER_AGE)
return answer
