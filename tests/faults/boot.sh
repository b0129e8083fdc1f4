#!/bin/sh
# Boot systemd as PID 1 of a machine made of namespaces, on a throw-away copy of this machine's root file system.
#
#   unshare --mount sh boot.sh outer DIR VENV BASE
#
# The machine is on until the end of standard input, by whatever death of who holds the pipe. DIR/pid has its parent.
# DIR/opt and DIR/lib become /opt and /var/lib there, VENV becomes /opt/tickpool/.venv, and BASE is the home of its
# interpreter. Whatever else the machine writes goes into memory and is gone with it. Outside it there is one cgroup,
# which is removed when the kernel has killed every process of the machine together with its PID 1.
set -eu
stage=$1 dir=$2 venv=$3 base=$4

outer() {
    # A mount of our own: the one that is there may be read-only, or of the layout before cgroup v2.
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    group=/sys/fs/cgroup$(sed -n 's/^0:://p' /proc/self/cgroup)/tickpool-test-$$
    mkdir "$group"
    exec 3<&0
    sh -ec 'echo $$ > "$1/cgroup.procs"; shift; exec "$@"' - "$group" \
        unshare --pid --fork --kill-child --mount --uts --ipc --net --cgroup \
        sh "$0" inner "$dir" "$venv" "$base" < /dev/null 3<&- &
    machine=$!
    echo "$machine" > "$dir/pid.new" && mv "$dir/pid.new" "$dir/pid"
    (
        read -r _ <&3 || :
        read -r pid_1 _ < "/proc/$machine/task/$machine/children" || :
        kill -KILL "${pid_1:-$machine}"
    ) 2> /dev/null &
    status=0
    wait "$machine" || status=$?
    kill "$!" 2> /dev/null || :
    exec 3<&-
    left=100
    while find "$group" -depth -type d -exec rmdir {} + 2> /dev/null || :; [ -d "$group" ] && [ "$left" -gt 0 ]; do
        left=$((left - 1))
        sleep 0.05
    done
    exit "$status"
}

inner() {
    umount /sys/fs/cgroup
    mkdir "$dir/memory"
    mount -t tmpfs -o mode=755 tmpfs "$dir/memory"
    cd "$dir/memory"
    mkdir upper work new
    mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay new
    cd new
    kernel_files
    device_files
    mount -t tmpfs -o mode=755 tmpfs run
    mount --rbind "$dir/opt" opt
    mount --bind "$dir/lib" var/lib
    mount --bind "$venv" opt/tickpool/.venv
    reach "$base"
    leave_one_service
    pivot_root . mnt
    umount -l /mnt
    # As on a machine that boots: mounts reach the namespaces of services. systemd leaves that to whoever made a container.
    mount --make-rshared /
    exec env -i container=tickpool-test PATH=/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8 \
        /lib/systemd/systemd --system --unit=multi-user.target
}

kernel_files() {
    mount -t proc proc proc
    # The settings of the kernel are the same outside.
    mount --bind proc/sys proc/sys
    mount -o remount,bind,ro proc/sys
    mount -t sysfs -o ro sysfs sys
    mount -t cgroup2 cgroup2 sys/fs/cgroup
}

device_files() {
    mount -t tmpfs -o mode=755 tmpfs dev
    mkdir dev/pts dev/shm
    mount -t devpts -o newinstance,ptmxmode=666,mode=620 devpts dev/pts
    ln -s pts/ptmx dev/ptmx
    for name in null zero full random urandom tty; do
        : > "dev/$name"
        mount --bind "/dev/$name" "dev/$name"
    done
    for name in console kmsg; do
        : > "dev/$name"
        mount --bind /dev/null "dev/$name"
    done
}

# The interpreter may live in somebody's home directory, where no other user may look.
reach() {
    case $1 in /usr | /usr/local) return ;; esac
    mkdir -p ".$1"
    mount --rbind "$1" ".$1"
    above=$1
    while above=$(dirname "$above") && [ "$above" != / ]; do
        chmod a+rx ".$above"
    done
}

# Of all that would start at boot only the journal is left; mounts, consoles and devices are not this machine's business.
leave_one_service() {
    units=$(readlink -f lib/systemd/system)
    units=.${units#"$PWD"}
    rm -rf "$units"/*.wants "$units"/systemd-journald-audit.socket lib/systemd/system-generators/* etc/systemd/system/* etc/systemd/journald.conf.d
    mkdir "$units/sysinit.target.wants"
    ln -s ../systemd-journald.service "$units/sysinit.target.wants/"
    printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=\n' > etc/systemd/journald.conf
    tr -d - < /proc/sys/kernel/random/uuid > etc/machine-id
}

"$stage"
