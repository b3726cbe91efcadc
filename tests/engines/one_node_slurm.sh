#!/bin/bash
# A Slurm of one node with two cores, this machine, for tests: one_node_slurm.sh start|node|stop FOLDER
#
# It lives in FOLDER alone (keep its name short, since a socket lies in it), with daemons, ports and keys of its own, and
# runs as whoever starts it. Partition `low` is the default; jobs of `high` take the place of those of `low`, which are
# queued again. A node that gives no sign for ten seconds counts as lost. Commands find it by SLURM_CONF=FOLDER/slurm.conf.
# `node` starts the node's daemon alone, after it was killed. Debian: apt-get install slurm-wlm munge
set -eu
what=$1 root=$(realpath -m "$2")
export SLURM_CONF=$root/slurm.conf
me=$(id -un) node=$(hostname -s)

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("", 0)); print(s.getsockname()[1])'; }

settings() {
    cat <<C
ClusterName=tests
SlurmctldHost=$node(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=$me
SlurmdUser=$me
AuthType=auth/munge
AuthInfo=socket=$root/munge/socket
CredType=cred/munge
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool
SlurmctldPidFile=$root/controller.pid
SlurmdPidFile=$root/node.pid
SlurmctldLogFile=$root/controller.log
SlurmdLogFile=$root/node.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
SlurmdParameters=config_overrides
SlurmdTimeout=10
KillWait=15
MaxArraySize=2001
MaxJobCount=5000
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
JobRequeue=1
NodeName=$node NodeAddr=127.0.0.1 CPUs=2 State=UNKNOWN
PartitionName=low Nodes=$node Default=YES MaxTime=INFINITE State=UP PriorityTier=1 PreemptMode=REQUEUE
PartitionName=high Nodes=$node MaxTime=INFINITE State=UP PriorityTier=10 PreemptMode=OFF
C
}

until_idle() {
    for _ in $(seq 60); do
        sinfo -h -o %T 2>/dev/null | grep -qE '^(idle|mixed|allocated)$' && return
        sleep 0.5
    done
    echo "the node does not come up; see $root/*.log" >&2
    exit 1
}

case $what in
start)
    mkdir -p "$root"/{state,spool,munge}
    chmod 755 "$root" && chmod 700 "$root/munge"
    head -c 1024 /dev/urandom >"$root/munge/key" && chmod 400 "$root/munge/key"
    munged --force --key-file "$root/munge/key" --socket "$root/munge/socket" --pid-file "$root/munge/pid" \
        --log-file "$root/munge/log" --seed-file "$root/munge/seed"
    settings >"$root/slurm.conf"
    slurmctld -c
    slurmd -c
    until_idle
    ;;
node)
    slurmd
    until_idle
    ;;
stop)
    for pid in "$root"/{node,controller}.pid "$root/munge/pid"; do
        number=$(cat "$pid" 2>/dev/null) || continue
        kill "$number" 2>/dev/null || continue
        for _ in $(seq 50); do kill -0 "$number" 2>/dev/null || break; sleep 0.1; done
    done
    ;;
esac
