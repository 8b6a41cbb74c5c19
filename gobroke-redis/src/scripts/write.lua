-- Writes a batch of what changed on an instance, all of it or nothing.
--
-- A client's place is "<registration> <instance>". Its record: the client, last message u64, since u64, endpoint,
-- address, metadata, then its groups, each text behind its length as u32, big endian.
--
-- KEYS: state, instances, batches, places, groups of the instance, rewriting, its clients, part by part
-- ARGV: prefix of the keys of groups, prefix of the keys of clients, name, incarnation, epoch, batch,
--   the batch before or '' for any, nonce, 1 if this is the last of all that the instance has, notice channel, the
--   command by which notices are published, then counts of and: went (client, registration),
--   came (client, registration or '', record), changed (client, registration, last message or '', 0 or 1, metadata,
--   count of and groups left, count of and groups joined), groups lost, groups gained
-- Gives back the number before the first that was drawn: in their order, those that came without a registration have
-- those behind it, with the nonce. Then, for who came and this is not all there is to say, its place from 0 and
-- "b<instance before>" or "e<newer registration>".
local state, instances, batches, places, groups, rewriting = unpack(KEYS)
local parts = {unpack(KEYS, 7)}
local at = 0
local function take()
    at = at + 1
    return ARGV[at]
end
local group_prefix, client_prefix, name, incarnation, epoch, batch, before, nonce, last, channel, publish =
    take(), take(), take(), take(), take(), take(), take(), take(), take(), take(), take()
local id = name .. '#' .. incarnation

if redis.call('HGET', state, 'epoch') ~= epoch then return redis.error_reply('OUTOFSTEP the epoch is another') end
if redis.call('HGET', instances, name) ~= incarnation then return redis.error_reply('EXPELLED not an instance') end
if before ~= '' and (redis.call('HGET', batches, id) or '0') ~= before then
    return redis.error_reply('OUTOFSTEP the batch before is missing')
end

local time = redis.call('TIME')
local drawn = math.max(tonumber(redis.call('HGET', state, 'drawn')) or 0, time[1] * 1000000 + time[2])

local function newer(a, b)
    local number_a, nonce_a = string.match(a, '^(%d+)%.(%x+)$')
    local number_b, nonce_b = string.match(b, '^(%d+)%.(%x+)$')
    number_a, number_b = tonumber(number_a), tonumber(number_b)
    return number_a > number_b or (number_a == number_b and tonumber(nonce_a, 16) > tonumber(nonce_b, 16))
end

-- One command for all clients of a kind: a call from here costs as much as what it does.
local function read(key, fields)
    if #fields == 0 then return {} end
    return redis.call('HMGET', key, unpack(fields))
end
local function run(command, key, fields)
    if #fields > 0 then redis.call(command, key, unpack(fields)) end
end

-- In which part a client's record is, from 0: ids are counted in some of their bits, wherever these are.
local function part_of(client)
    local a, b, c, d = struct.unpack('>I4I4I4I4', client)
    return (a + b + c + d) % #parts
end
-- For each part that has any of them: each client, and after it the one at its place among `values`, where these are
-- given.
local function by_part(ids, values)
    local lists = {}
    for i, client in ipairs(ids) do
        local part = parts[part_of(client) + 1]
        local list = lists[part]
        if not list then
            list = {}
            lists[part] = list
        end
        list[#list + 1] = client
        if values then list[#list + 1] = values[i] end
    end
    return lists
end
local function write_records(ids, records)
    for part, fields in pairs(by_part(ids, records)) do redis.call('HSET', part, unpack(fields)) end
end
local function remove_records(ids)
    for part, fields in pairs(by_part(ids)) do redis.call('HDEL', part, unpack(fields)) end
end
local function read_records(ids)
    local found = {}
    for part, fields in pairs(by_part(ids)) do
        for i, record in ipairs(redis.call('HMGET', part, unpack(fields))) do found[fields[i]] = record end
    end
    return found
end

local ids, registrations = {}, {}
for i = 1, take() do ids[i], registrations[i] = take(), take() end
local places_gone, records_gone = {}, {}
for i, place in ipairs(read(places, ids)) do
    if place == registrations[i] .. ' ' .. id then
        table.insert(places_gone, ids[i])
        table.insert(records_gone, ids[i])
    elseif not place or string.match(place, '^%S+ (.*)$') ~= id then
        table.insert(records_gone, ids[i])
    end
end
run('HDEL', places, places_gone)
remove_records(records_gone)

local records, told, places_new, ids_new, records_new = {}, {}, {}, {}, {}
ids, registrations = {}, {}
for i = 1, take() do
    ids[i], registrations[i], records[i] = ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
    at = at + 3
end
local before_first, here = string.format('%.0f', drawn), ' ' .. id
for i, place in ipairs(read(places, ids)) do
    local client, registration, known, older = ids[i], registrations[i], nil, nil
    if place then known, older = string.match(place, '^(%S+) (.*)$') end
    if known and registration ~= '' and newer(known, registration) then
        redis.call('HDEL', parts[part_of(client) + 1], client)
        table.insert(told, {i - 1, 'e' .. known})
    else
        if registration == '' then
            drawn = drawn + 1
            registration = string.format('%.0f.%s', drawn, nonce)
        end
        if older and older ~= id then
            redis.call('HDEL', client_prefix .. older .. ':' .. part_of(client), client)
            table.insert(told, {i - 1, 'b' .. older})
        end
        local n = #ids_new + 1
        ids_new[n], records_new[n] = client, records[i]
        places_new[2 * n - 1], places_new[2 * n] = client, registration .. here
    end
end
run('HSET', places, places_new)
write_records(ids_new, records_new)
redis.call('HSET', state, 'drawn', string.format('%.0f', drawn))

local changes = {}
ids, ids_new, records_new = {}, {}, {}
for i = 1, take() do
    local client, registration, last, has_metadata, metadata = take(), take(), take(), take(), take()
    local gone, joined = {}, {}
    for _ = 1, take() do gone[take()] = true end
    for j = 1, take() do joined[j] = take() end
    ids[i] = client
    changes[i] = {registration, last, has_metadata == '1', metadata, gone, joined}
end
records = read_records(ids)
for i, place in ipairs(read(places, ids)) do
    local registration, last, has_metadata, metadata, gone, joined = unpack(changes[i])
    local record = records[ids[i]]
    if record and place == registration .. ' ' .. id then
        local since = string.sub(record, 25, 32)
        local endpoint, remote, old, position = struct.unpack('>I4c0I4c0I4c0', record, 33)
        if not has_metadata then metadata = old end
        if last == '' then last = string.sub(record, 17, 24) else last = struct.pack('>I8', tonumber(last)) end
        local laid = {ids[i], last, since, struct.pack('>I4c0I4c0I4c0', #endpoint, endpoint, #remote, remote, #metadata, metadata)}
        local has = {}
        while position <= #record do
            local known
            known, position = struct.unpack('>I4c0', record, position)
            if not gone[known] and not has[known] then
                has[known] = true
                table.insert(laid, struct.pack('>I4c0', #known, known))
            end
        end
        for _, group in ipairs(joined) do
            if not has[group] then
                has[group] = true
                table.insert(laid, struct.pack('>I4c0', #group, group))
            end
        end
        table.insert(ids_new, ids[i])
        table.insert(records_new, table.concat(laid))
    end
end
write_records(ids_new, records_new)

for _ = 1, take() do
    local group = take()
    redis.call('SREM', groups, group)
    redis.call('SREM', group_prefix .. group, id)
end
for _ = 1, take() do
    local group = take()
    redis.call('SADD', groups, group)
    redis.call('SADD', group_prefix .. group, id)
end
if last == '1' and redis.call('HDEL', rewriting, id) == 1 and redis.call('HLEN', rewriting) == 0 then
    redis.call(publish, channel, redis.call('HINCRBY', state, 'list', 1))
end
-- At last, so that no other follows one that broke off.
redis.call('HSET', batches, id, batch)
return {before_first, told}
