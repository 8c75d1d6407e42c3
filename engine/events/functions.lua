#!lua name=orchestrator

-- One tick's stream writes, once. KEYS: tick key, partition stream, then a stream for each entry.
-- ARGV: tick, seconds to keep the tick key, group, number of acknowledgements, the ids, then an entry's body for
-- each remaining key. Entries are written unless this tick or a later one was; acknowledging is always safe.
local function write_tick(keys, args)
  local tick, keep, group, acks = tonumber(args[1]), tonumber(args[2]), args[3], tonumber(args[4])
  local written = 0
  if tick > tonumber(redis.call('GET', keys[1]) or '0') then
    for i = 3, #keys do
      redis.call('XADD', keys[i], '*', 'b', args[4 + acks + i - 2])
    end
    redis.call('SET', keys[1], tick, 'EX', keep)
    written = 1
  end
  for first = 1, acks, 500 do
    local last = math.min(first + 499, acks)
    redis.call('XACK', keys[2], group, unpack(args, 4 + first, 4 + last))
    redis.call('XDEL', keys[2], unpack(args, 4 + first, 4 + last))
  end
  return written
end

-- A partition's lease. KEYS: owner, fence. ARGV: owner's id, milliseconds. Answers the fence, or 0 when another owns it.
local function own_partition(keys, args)
  local owner = redis.call('GET', keys[1])
  if owner == args[1] then
    redis.call('PEXPIRE', keys[1], args[2])
    return tonumber(redis.call('GET', keys[2]))
  elseif owner then
    return 0
  end
  redis.call('SET', keys[1], args[1], 'PX', args[2])
  return redis.call('INCR', keys[2])
end

-- KEYS: owner. ARGV: owner's id.
local function release_partition(keys, args)
  if redis.call('GET', keys[1]) == args[1] then
    return redis.call('DEL', keys[1])
  end
  return 0
end

redis.register_function('orc_write_tick', write_tick)
redis.register_function('orc_own_partition', own_partition)
redis.register_function('orc_release_partition', release_partition)
