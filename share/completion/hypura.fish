# Completion of hypura for fish. The program itself is asked which commands and options it has.

function __hypura_commands
    hypura help 2>/dev/null | awk '/^commands:/{on=1;next} /^$/{on=0} on{name=$1; $1=""; sub(/^ */, ""); print name "\t" $0}'
end

function __hypura_command
    set -l words (commandline -opc)
    test (count $words) -gt 1; and echo $words[2]
end

function __hypura_options
    hypura (__hypura_command) --help 2>/dev/null | awk '/^  --/{name=$1; line=$0; sub(/^  --[^ ]*( [^ ]+)?  +/, "", line); print name "\t" line}'
end

function __hypura_models
    set -l folder $HYPURA_MODELS
    test -z "$folder"; and set folder (test -n "$XDG_DATA_HOME"; and echo $XDG_DATA_HOME; or echo $HOME/.local/share)/hypura/models
    test -d $folder; and find $folder -name '*.gguf' -not -path '*/.*' | string replace "$folder/" '' | string replace -r '\.gguf$' ''
end

complete -c hypura -f
complete -c hypura -n 'test -z (__hypura_command)' -a '(__hypura_commands)'
complete -c hypura -n 'test -z (__hypura_command)' -a help -d 'options of a command'
complete -c hypura -n 'test (__hypura_command) = help' -a '(__hypura_commands)'
complete -c hypura -n 'test -n (__hypura_command); and string match -q -- "-*" (commandline -ct)' -a '(__hypura_options)'
complete -c hypura -n 'test -n (__hypura_command)' -a '(__hypura_models)'
complete -c hypura -n 'test -n (__hypura_command)' -F
