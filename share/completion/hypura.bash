# Completion of hypura for bash. The program itself is asked which commands and options it has.

_hypura_models() {
    local folder=${HYPURA_MODELS:-${XDG_DATA_HOME:-$HOME/.local/share}/hypura/models}
    [ -d "$folder" ] && (cd "$folder" && find . -path './.*' -prune -o -name '*.gguf' -print 2>/dev/null | sed 's|^\./||; s|\.gguf$||')
}

_hypura() {
    local program=${COMP_WORDS[0]} word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]} command=${COMP_WORDS[1]}
    local commands='/^commands:/{on=1;next} /^$/{on=0} on{print $1}'
    local IFS=$'\n'
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ] || { [ "$COMP_CWORD" -eq 2 ] && [ "$command" = help ]; }; then
        COMPREPLY=($(compgen -W "$("$program" help 2>/dev/null | awk "$commands")
help
--help
--version" -- "$word"))
        return
    fi
    case $before in
    --io-engine) COMPREPLY=($(compgen -W $'uring\npool' -- "$word")) && return ;;
    --log-level) COMPREPLY=($(compgen -W $'error\nwarn\ninfo\ndebug' -- "$word")) && return ;;
    --gpu-misses) COMPREPLY=($(compgen -W $'upload\ncpu' -- "$word")) && return ;;
    --cache-type-?) COMPREPLY=($(compgen -W $'f16\nbf16\nf32\nq8_0\nq5_1\nq5_0\nq4_1\nq4_0\niq4_nl' -- "$word")) && return ;;
    --think) COMPREPLY=($(compgen -W $'on\noff\nlow\nmedium\nhigh' -- "$word")) && return ;;
    --foresight) COMPREPLY=($(compgen -W $'auto\non\noff\nco-activation' -- "$word")) && return ;;
    --spec-type) COMPREPLY=($(compgen -W $'ngram-simple\nngram-map-k\nngram-map-k4v\nngram-mod\nngram-cache' -- "$word")) && return ;;
    --models | --import) COMPREPLY=($(compgen -d -- "$word")) && return ;;
    --*file | --*json | --image | --mmproj | --template | --history | --report | --route | --trace | --timeline | --child-log | --engine)
        [ "$before" != --json ] && COMPREPLY=($(compgen -f -- "$word")) && return
        ;;
    esac
    if [ "${word:0:1}" = - ]; then
        COMPREPLY=($(compgen -W "$("$program" "$command" --help 2>/dev/null | awk '/^  --/{print $1}')" -- "$word"))
    else
        COMPREPLY=($(compgen -f -X '!*.gguf' -- "$word") $(compgen -d -S / -- "$word") $(compgen -W "$(_hypura_models)" -- "$word"))
    fi
}
complete -o filenames -o nospace -F _hypura hypura
