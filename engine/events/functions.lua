#!lua name=orchestrator

-- One tick's stream writes, once. KEYS: tick key, partition stream, then a stream for each entry.
-- ARGV: tick, seconds to keep the tick key, group, watchers' channel, their nudge, number of acknowledgements, the ids,
-- then an entry's body for each remaining key. Entries are written unless this tick or a later one was; acknowledging
-- and nudging are always safe.
local function write_tick(keys, args)
  local tick, keep, group, acks = tonumber(args[1]), tonumber(args[2]), args[3], tonumber(args[6])
  local written = 0
  redis.call('PUBLISH', args[4], args[5])
  if tick > tonumber(redis.call('GET', keys[1]) or '0') then
    for i = 3, #keys do
      redis.call('XADD', keys[i], '*', 'b', args[6 + acks + i - 2])
    end
    redis.call('SET', keys[1], tick, 'EX', keep)
    written = 1
  end
  for first = 1, acks, 500 do
    local last = math.min(first + 499, acks)
    redis.call('XACK', keys[2], group, unpack(args, 6 + first, 6 + last))
    redis.call('XDEL', keys[2], unpack(args, 6 + first, 6 + last))
  end
  return written
end

-- Who reads which partition. One call says that the caller lives, extends or gives up what it holds, and takes what is
-- free, up to its share. Shares differ by one at most, and the larger ones are those of whoever holds most, so that
-- nothing moves once everybody has a share. Only what its owner has stopped reading is released.
-- KEYS: members, then owner and fence of each partition. ARGV: caller's id, milliseconds that a lease lasts, then what
-- the caller does with each partition: 'reads', 'stopped' (and nothing of it is under way) or ''.
-- Answers for each partition the fence under which the caller is to read it, 0 when it is not the caller's, or -1 when
-- it is to stop reading it; then how many it lacks. A partition that the caller did not read gets a new fence. Fences
-- follow the clock, so that they rise even when this server loses everything.
local function share_partitions(keys, args)
  local me, lease, members = args[1], tonumber(args[2]), keys[1]
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  redis.call('ZADD', members, now, me)
  redis.call('ZREMRANGEBYSCORE', members, '-inf', now - lease)
  redis.call('PEXPIRE', members, 2 * lease)

  local living, held, owners, count = redis.call('ZRANGE', members, 0, -1), {}, {}, (#keys - 1) / 2
  for _, member in ipairs(living) do
    held[member] = 0
  end
  for i = 1, count do
    owners[i] = redis.call('GET', keys[2 * i])
    if owners[i] and held[owners[i]] then
      held[owners[i]] = held[owners[i]] + 1
    end
  end
  table.sort(living, function(a, b)
    return held[a] > held[b] or (held[a] == held[b] and a < b)
  end)
  local share, larger = math.floor(count / #living), count % #living
  for rank = 1, larger do
    if living[rank] == me then
      share = share + 1
    end
  end

  local surplus, lacking, answers = math.max(held[me] - share, 0), math.max(share - held[me], 0), {}
  local function renew_fence(i)
    local last = tonumber(redis.call('GET', keys[2 * i + 1]) or '0')
    local fence = math.max(last + 1, now)
    redis.call('SET', keys[2 * i + 1], string.format('%.0f', fence))
    return fence
  end
  for i = 1, count do
    if owners[i] == me and args[2 + i] == 'stopped' and surplus > 0 then
      redis.call('DEL', keys[2 * i])
      owners[i], surplus, answers[i] = 'another', surplus - 1, 0
    end
  end
  for i = count, 1, -1 do
    if owners[i] == me then
      redis.call('PEXPIRE', keys[2 * i], lease)
      if surplus > 0 then
        surplus, answers[i] = surplus - 1, -1
      elseif args[2 + i] == 'reads' then
        answers[i] = tonumber(redis.call('GET', keys[2 * i + 1]) or '0')
      end
      if not answers[i] or answers[i] == 0 then
        answers[i] = renew_fence(i)
      end
    end
  end
  for i = 1, count do
    if not owners[i] and lacking > 0 then
      redis.call('SET', keys[2 * i], me, 'PX', lease)
      lacking, answers[i] = lacking - 1, renew_fence(i)
    end
    answers[i] = answers[i] or 0
  end
  answers[count + 1] = lacking
  return answers
end

-- The caller goes. KEYS: members, then the owner of each partition. ARGV: caller's id.
local function leave_partitions(keys, args)
  redis.call('ZREM', keys[1], args[1])
  local released = 0
  for i = 2, #keys do
    if redis.call('GET', keys[i]) == args[1] then
      released = released + redis.call('DEL', keys[i])
    end
  end
  return released
end

-- What another process read of a partition after this one had taken it over: written again as new entries, because by
-- now workflows may count an entry of that age as seen. Also forgets readers that are long gone. KEYS: owner, stream.
-- ARGV: owner's id, group, entries at most, milliseconds after which a reader is forgotten. Answers how many moved.
local function requeue_strays(keys, args)
  if redis.call('GET', keys[1]) ~= args[1] then
    return 0
  end
  local stream, group, moved = keys[2], args[2], 0
  for _, fields in ipairs(redis.call('XINFO', 'CONSUMERS', stream, group)) do
    local reader = {}
    for i = 1, #fields, 2 do
      reader[fields[i]] = fields[i + 1]
    end
    if reader.name ~= args[1] and reader.pending > 0 then
      for _, pending in ipairs(redis.call('XPENDING', stream, group, '-', '+', args[3], reader.name)) do
        local entry = redis.call('XRANGE', stream, pending[1], pending[1])[1]
        if entry then
          redis.call('XADD', stream, '*', unpack(entry[2]))
        end
        redis.call('XACK', stream, group, pending[1])
        redis.call('XDEL', stream, pending[1])
        moved = moved + 1
      end
    elseif reader.name ~= args[1] and reader.idle > tonumber(args[4]) then
      redis.call('XGROUP', 'DELCONSUMER', stream, group, reader.name)
    end
  end
  return moved
end

redis.register_function('orc_write_tick', write_tick)
redis.register_function('orc_share_partitions', share_partitions)
redis.register_function('orc_leave_partitions', leave_partitions)
redis.register_function('orc_requeue_strays', requeue_strays)
