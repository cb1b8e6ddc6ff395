# SPDX-License-Identifier: Apache-2.0
# Written by docs/completions/make from the help of corten: edit that.
#
# bash: needs nothing but bash. Works under another name of the program too: complete -F _corten runc

_corten_flags() {
    case $1 in
    '') echo '--debug --log --log-format --log-level --root --criu --systemd-cgroup --cgroup-manager --rootless --version -v --help -h' ;;
    'checkpoint') echo '--image-path --work-path --tcp-established --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --lazy-pages --network-lock --parent-path --leave-running --tcp-skip-in-flight --link-remap --status-fd --page-server --pre-dump --help -h' ;;
    'create') echo '--bundle -b --config -f --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --no-subreaper --preserve-fds --trace --help -h' ;;
    'delete') echo '--force -f --regex -r --help -h' ;;
    'doctor') echo '--json --clean --quiet -q --help -h' ;;
    'events') echo '--interval --stats --help -h' ;;
    'exec') echo '--console-socket --pidfd-socket --cwd --env -e --tty -t --user -u --additional-gids -g --process -p --detach -d --pid-file --process-label --apparmor --no-new-privs --cap -c --preserve-fds --cgroup --ignore-paused --trace --help -h' ;;
    'features') echo '--help -h' ;;
    'kill') echo '--all -a --regex -r --help -h' ;;
    'list') echo '--format -f --quiet -q --help -h' ;;
    'mounts') echo '--help -h' ;;
    'pause') echo '--help -h' ;;
    'plan') echo '--bundle -b --config -f --json --restore --help -h' ;;
    'ps') echo '--format -f --help -h' ;;
    'restore') echo '--bundle -b --console-socket --pid-file --detach -d --no-subreaper --no-pivot --tcp-close --lsm-profile --lsm-mount-context --image-path --work-path --tcp-established --ext-unix-sk --shell-job --file-locks --manage-cgroups-mode --empty-ns --auto-dedup --lazy-pages --network-lock --help -h' ;;
    'resume') echo '--help -h' ;;
    'run') echo '--bundle -b --config -f --console-socket --pidfd-socket --pid-file --no-pivot --no-new-keyring --no-subreaper --preserve-fds --trace --detach -d --keep --help -h' ;;
    'setup') echo '--default --undo --dry-run --config --help -h' ;;
    'spec') echo '--bundle -b --file -f --rootless --help -h' ;;
    'start') echo '--trace --help -h' ;;
    'state') echo '--help -h' ;;
    'trace') echo '--svg --help -h' ;;
    'update') echo '--resources -r --blkio-weight --cpu-period --cpu-quota --cpu-burst --cpu-share --cpu-rt-period --cpu-rt-runtime --cpuset-cpus --cpuset-mems --cpu-idle --kernel-memory --kernel-memory-tcp --memory --memory-reservation --memory-swap --pids-limit --l3-cache-schema --mem-bw-schema --help -h' ;;
    'version') echo '' ;;
    'help') echo '' ;;
    esac
}

# What the value of a flag is: file, directory, words, or - for something else; nothing if it takes none.
_corten_value() {
    case $1 in
    ' --log') echo 'file' ;;
    ' --log-format') echo 'text json' ;;
    ' --log-level') echo 'debug info warning error' ;;
    ' --root') echo 'directory' ;;
    ' --criu') echo 'file' ;;
    ' --cgroup-manager') echo 'cgroupfs systemd disabled' ;;
    ' --rootless') echo 'auto true false' ;;
    'checkpoint --image-path') echo '-' ;;
    'checkpoint --work-path') echo '-' ;;
    'checkpoint --manage-cgroups-mode') echo '-' ;;
    'checkpoint --empty-ns') echo '-' ;;
    'checkpoint --network-lock') echo '-' ;;
    'checkpoint --parent-path') echo '-' ;;
    'checkpoint --status-fd') echo '-' ;;
    'checkpoint --page-server') echo '-' ;;
    'create --bundle' | 'create -b') echo 'directory' ;;
    'create --config' | 'create -f') echo 'file' ;;
    'create --console-socket') echo 'file' ;;
    'create --pidfd-socket') echo 'file' ;;
    'create --pid-file') echo 'file' ;;
    'create --preserve-fds') echo '-' ;;
    'create --trace') echo '-' ;;
    'events --interval') echo '-' ;;
    'exec --console-socket') echo 'file' ;;
    'exec --pidfd-socket') echo 'file' ;;
    'exec --cwd') echo '-' ;;
    'exec --env' | 'exec -e') echo '-' ;;
    'exec --user' | 'exec -u') echo '-' ;;
    'exec --additional-gids' | 'exec -g') echo '-' ;;
    'exec --process' | 'exec -p') echo 'file' ;;
    'exec --pid-file') echo 'file' ;;
    'exec --process-label') echo '-' ;;
    'exec --apparmor') echo '-' ;;
    'exec --cap' | 'exec -c') echo '-' ;;
    'exec --preserve-fds') echo '-' ;;
    'exec --cgroup') echo '-' ;;
    'exec --trace') echo '-' ;;
    'list --format' | 'list -f') echo 'table json' ;;
    'plan --bundle' | 'plan -b') echo 'directory' ;;
    'plan --config' | 'plan -f') echo 'file' ;;
    'ps --format' | 'ps -f') echo 'table json' ;;
    'restore --bundle' | 'restore -b') echo 'directory' ;;
    'restore --console-socket') echo 'file' ;;
    'restore --pid-file') echo 'file' ;;
    'restore --lsm-profile') echo '-' ;;
    'restore --lsm-mount-context') echo '-' ;;
    'restore --image-path') echo '-' ;;
    'restore --work-path') echo '-' ;;
    'restore --manage-cgroups-mode') echo '-' ;;
    'restore --empty-ns') echo '-' ;;
    'restore --network-lock') echo '-' ;;
    'run --bundle' | 'run -b') echo 'directory' ;;
    'run --config' | 'run -f') echo 'file' ;;
    'run --console-socket') echo 'file' ;;
    'run --pidfd-socket') echo 'file' ;;
    'run --pid-file') echo 'file' ;;
    'run --preserve-fds') echo '-' ;;
    'run --trace') echo '-' ;;
    'setup --config') echo 'file' ;;
    'spec --bundle' | 'spec -b') echo 'directory' ;;
    'spec --file' | 'spec -f') echo 'file' ;;
    'start --trace') echo '-' ;;
    'trace --svg') echo '-' ;;
    'update --resources' | 'update -r') echo '-' ;;
    'update --blkio-weight') echo '-' ;;
    'update --cpu-period') echo '-' ;;
    'update --cpu-quota') echo '-' ;;
    'update --cpu-burst') echo '-' ;;
    'update --cpu-share') echo '-' ;;
    'update --cpu-rt-period') echo '-' ;;
    'update --cpu-rt-runtime') echo '-' ;;
    'update --cpuset-cpus') echo '-' ;;
    'update --cpuset-mems') echo '-' ;;
    'update --cpu-idle') echo '-' ;;
    'update --kernel-memory') echo '-' ;;
    'update --kernel-memory-tcp') echo '-' ;;
    'update --memory') echo '-' ;;
    'update --memory-reservation') echo '-' ;;
    'update --memory-swap') echo '-' ;;
    'update --pids-limit') echo '-' ;;
    'update --l3-cache-schema') echo '-' ;;
    'update --mem-bw-schema') echo '-' ;;
    esac
}

# What a positional word of a command is.
_corten_word() { # COMMAND NUMBER
    case "$1 $2" in
    'checkpoint 1') echo id ;;
    'delete 1') echo id ;;
    'events 1') echo id ;;
    'exec 1') echo id ;;
    'kill 1') echo id ;;
    'mounts 1') echo id ;;
    'pause 1') echo id ;;
    'ps 1') echo id ;;
    'restore 1') echo id ;;
    'resume 1') echo id ;;
    'start 1') echo id ;;
    'state 1') echo id ;;
    'update 1') echo id ;;
    'kill 2') echo 'HUP INT QUIT ILL TRAP ABRT BUS FPE KILL USR1 SEGV USR2 PIPE ALRM TERM CHLD CONT STOP TSTP TTIN TTOU WINCH' ;;
    'setup 1') echo 'containerd docker podman' ;;
    'help 1') echo 'checkpoint create delete doctor events exec features kill list mounts pause plan ps restore resume run setup spec start state trace update version help' ;;
    esac
}

_corten_ids() { "$@" list --quiet 2>/dev/null; }

_corten() {
    local current=${COMP_WORDS[COMP_CWORD]} command='' count=0 pending='' kind='' ended='' word i
    local program=("${COMP_WORDS[0]}")
    COMPREPLY=()
    # The words before the current one. bash takes --flag=value apart at the `=`.
    for ((i = 1; i < COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if [[ -n $pending ]]; then
            [[ $word == = ]] && continue
            [[ $pending == ' --root' ]] && program+=(--root "$word")
            pending=''
        elif [[ -n $ended || $word != -?* ]]; then
            if [[ -z $command ]]; then command=$word; else count=$((count + 1)); fi
            # What follows the container's id is the user's own command line.
            [[ $command == exec && $count -gt 0 ]] && ended=1
        elif [[ $word == -- ]]; then
            ended=1
        elif [[ -n $(_corten_value "$command $word") && ${COMP_WORDS[i + 1]-} != *=?* ]]; then
            pending="$command $word"
        fi
    done
    [[ $current == '=' ]] && current=''
    if [[ -n $pending ]]; then
        kind=$(_corten_value "$pending")
    elif [[ $command == exec && $count -gt 0 ]]; then
        kind='file'
    elif [[ $current == -* && -z $ended ]]; then
        kind=$(_corten_flags "$command")
    elif [[ -z $command ]]; then
        kind=$(_corten_word help 1)
    else
        kind=$(_corten_word "$command" $((count + 1)))
    fi
    [[ $command != kill || $current != SIG* ]] || kind="SIG${kind// / SIG}"
    case $kind in
    '' | -) ;;
    file) mapfile -t COMPREPLY < <(compgen -f -- "$current") && compopt -o filenames 2>/dev/null ;;
    directory) mapfile -t COMPREPLY < <(compgen -d -- "$current") && compopt -o filenames 2>/dev/null ;;
    id) mapfile -t COMPREPLY < <(compgen -W "$(_corten_ids "${program[@]}")" -- "$current") ;;
    *) mapfile -t COMPREPLY < <(compgen -W "$kind" -- "$current") ;;
    esac
    return 0
}

complete -F _corten corten
