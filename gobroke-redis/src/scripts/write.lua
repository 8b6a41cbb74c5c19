-- Writes a batch of what changed on an instance, all of it or nothing.
--
-- A client's place is "<registration> <instance>". Its record: last message u64, since u64, endpoint, address,
-- metadata, then its groups, each text behind its length as u32, big endian.
--
-- KEYS: state, instances, batches, places, clients of the instance, groups of the instance
-- ARGV: prefix of the keys of groups, prefix of the keys of clients, name, incarnation, epoch, batch,
--   the batch before or '' for any, nonce, then counts of and: went (client, registration),
--   came (client, registration or '', record), changed (client, registration, last message or '', 0 or 1, metadata,
--   count of and groups left, count of and groups joined), groups lost, groups gained
-- Gives back for each that came "h<registration>", "h<registration> <instance before>" or "e<newer registration>".
local state, instances, batches, places, clients, groups = unpack(KEYS)
local at = 0
local function take()
    at = at + 1
    return ARGV[at]
end
local group_prefix, client_prefix, name, incarnation, epoch, batch, before, nonce =
    take(), take(), take(), take(), take(), take(), take(), take()
local id = name .. '#' .. incarnation

if redis.call('HGET', state, 'epoch') ~= epoch then return redis.error_reply('OUTOFSTEP the epoch is another') end
if redis.call('HGET', instances, name) ~= incarnation then return redis.error_reply('EXPELLED not an instance') end
if before ~= '' and (redis.call('HGET', batches, id) or '0') ~= before then
    return redis.error_reply('OUTOFSTEP the batch before is missing')
end
redis.call('HSET', batches, id, batch)

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
run('HDEL', clients, records_gone)

local records, answers, places_new, records_new = {}, {}, {}, {}
ids, registrations = {}, {}
for i = 1, take() do ids[i], registrations[i], records[i] = take(), take(), take() end
for i, place in ipairs(read(places, ids)) do
    local client, registration, known, older = ids[i], registrations[i], nil, nil
    if place then known, older = string.match(place, '^(%S+) (.*)$') end
    if known and registration ~= '' and newer(known, registration) then
        redis.call('HDEL', clients, client)
        answers[i] = 'e' .. known
    else
        if registration == '' then
            drawn = drawn + 1
            registration = string.format('%.0f', drawn) .. '.' .. nonce
        end
        answers[i] = 'h' .. registration
        if older and older ~= id then
            redis.call('HDEL', client_prefix .. older, client)
            answers[i] = answers[i] .. ' ' .. older
        end
        table.insert(places_new, client)
        table.insert(places_new, registration .. ' ' .. id)
        table.insert(records_new, client)
        table.insert(records_new, records[i])
    end
end
run('HSET', places, places_new)
run('HSET', clients, records_new)
redis.call('HSET', state, 'drawn', string.format('%.0f', drawn))

local changes = {}
ids, records_new = {}, {}
for i = 1, take() do
    local client, registration, last, has_metadata, metadata = take(), take(), take(), take(), take()
    local gone, joined = {}, {}
    for _ = 1, take() do gone[take()] = true end
    for j = 1, take() do joined[j] = take() end
    ids[i] = client
    changes[i] = {registration, last, has_metadata == '1', metadata, gone, joined}
end
records = read(clients, ids)
for i, place in ipairs(read(places, ids)) do
    local registration, last, has_metadata, metadata, gone, joined = unpack(changes[i])
    local record = records[i]
    if record and place == registration .. ' ' .. id then
        local head = string.sub(record, 9, 16)
        local endpoint, remote, old, position = struct.unpack('>I4c0I4c0I4c0', record, 17)
        if not has_metadata then metadata = old end
        if last == '' then last = string.sub(record, 1, 8) else last = struct.pack('>I8', tonumber(last)) end
        local parts = {last, head, struct.pack('>I4c0I4c0I4c0', #endpoint, endpoint, #remote, remote, #metadata, metadata)}
        local has = {}
        while position <= #record do
            local known
            known, position = struct.unpack('>I4c0', record, position)
            if not gone[known] and not has[known] then
                has[known] = true
                table.insert(parts, struct.pack('>I4c0', #known, known))
            end
        end
        for _, group in ipairs(joined) do
            if not has[group] then
                has[group] = true
                table.insert(parts, struct.pack('>I4c0', #group, group))
            end
        end
        table.insert(records_new, ids[i])
        table.insert(records_new, table.concat(parts))
    end
end
run('HSET', clients, records_new)

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
return answers
