-- How many clients all instances have but one, and the epoch.
-- KEYS: state, places, unswept
-- ARGV: the one, prefix of the keys of clients, how many parts the records of an instance are in
local state, places, unswept = unpack(KEYS)
local prefix, parts = ARGV[2], ARGV[3]
local count = redis.call('HLEN', places)
local function without(id)
    for part = 0, parts - 1 do count = count - redis.call('HLEN', prefix .. id .. ':' .. part) end
end
without(ARGV[1])
-- Whoever has left, and is not cleaned up after yet, has places, too.
local gone = redis.call('HGETALL', unswept)
for i = 1, #gone, 2 do
    if gone[i] ~= ARGV[1] then without(gone[i]) end
end
return {math.max(count, 0), redis.call('HGET', state, 'epoch') or ''}
