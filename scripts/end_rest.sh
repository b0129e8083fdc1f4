#!/bin/sh
# The unit's ExecStopPost: when the service has stopped in order, end what a supervisor that died before had left at
# work. Its workers get TERM, so that they cancel their runs and record that; what is still there later gets KILL.
# After any other end of the supervisor all of it goes on, for the next supervisor to watch.
set -eu
case ${SERVICE_RESULT:-} in
    success | timeout) ;;
    *) exit 0 ;;
esac
group=$(sed -n 's/^0:://p' /proc/self/cgroup)
members=/sys/fs/cgroup$group/cgroup.procs
if [ ! -e "$members" ]; then  # not cgroup v2 alone
    members=/sys/fs/cgroup/systemd$(sed -n 's/^[0-9]*:name=systemd://p' /proc/self/cgroup)/cgroup.procs
fi

# list COMMAND: call it with the pid, the name and the parent of each process of the service but this one.
list() {
    while read -r pid; do
        if [ "$pid" != $$ ] && read -r _ name _ parent _ 2> /dev/null < "/proc/$pid/stat"; then
            "$1" "$pid" "$name" "$parent"
        fi
    done < "$members"
}

# The forks of a worker have its name too; they are the worker's to end.
cancel() {
    case $2 in "(tickpool-w"*) ;; *) return 0 ;; esac
    read -r above 2> /dev/null < "/proc/$3/comm" || above=
    case $above in tickpool-w*) ;; *) kill -TERM "$1" 2> /dev/null || : ;; esac
}

kill_it() {
    kill -KILL "$1" 2> /dev/null || :
}

count() {
    left=$((left + 1))
}

# wait_for_end SECONDS
wait_for_end() {
    turns=$((${1%.*} * 20))
    while left=0; list count; [ "$left" -gt 0 ] && [ "$turns" -gt 0 ]; do
        turns=$((turns - 1))
        sleep 0.05
    done
}

list cancel
grace=${TASK_GRACE_S:-5}
wait_for_end $((${grace%.*} + 5))
list kill_it
wait_for_end 2
