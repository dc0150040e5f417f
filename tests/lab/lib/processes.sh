# shellcheck shell=bash
# A process the lab started is known by pid and start time: a pid alone may by now be somebody else's.

# Field 22 of /proc/PID/stat, counted after the ")" since a name may hold spaces.
process_start_time() {
  local stat
  stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
  stat=${stat##*) }
  # shellcheck disable=SC2086 # split into fields on purpose
  set -- $stat
  echo "${20}"
}

# record_process FILE PID
record_process() {
  local started
  started=$(process_start_time "$2") || return 1
  echo "$2 $started" >"$1.new"
  mv "$1.new" "$1"
}

# recorded_process FILE: prints the pid if that very process still runs.
recorded_process() {
  local pid started
  read -r pid started 2>/dev/null <"$1" || return 1
  [[ -n $started && $(process_start_time "$pid") == "$started" ]] || return 1
  echo "$pid"
}

# stop_recorded FILE: for the first process of a PID namespace, which takes all others with it.
stop_recorded() {
  local pid
  if pid=$(recorded_process "$1"); then
    kill -KILL "$pid" 2>/dev/null || true
    wait_until 20 process_gone "$pid" || die "process $pid ($1) does not go away; look at it with: ps -fp $pid"
  fi
  rm -f "$1"
}

process_gone() { [[ ! -d /proc/$1 ]]; }
