#!/bin/sh
# A second implementation of the digests: recomputes every program and chain digest and SPIFFE ID of the vectors from their
# evidence, with coreutils, sed and awk only, and compares with what the vectors say. Needs nothing of attestd.
#
#   sh tests/vectors/recompute.sh [FILE.json …]     default: appraisal/*.json beside this script
#
# Prints one line a value: FILE WHAT VALUE; then "ok N values", exit 0. A difference is printed with both values, exit 1.
# The files are JSON as `json.dumps(indent=1)` writes it: one value a line, one space a level.
set -u
LC_ALL=C
export LC_ALL
here=$(dirname "$0")
[ $# -gt 0 ] || set -- "$here"/appraisal/*.json
flat=$(mktemp) || exit 2
trap 'rm -f "$flat"' EXIT
values=0
wrong=0

# JSON to lines of PATH=VALUE, for example evidence.chain.0.exe.sha256=ab12…; strings without quotes, escapes untouched.
flatten() {
    awk '{
        match($0, /^ */); depth = RLENGTH; text = substr($0, depth + 1); sub(/,$/, "", text)
        if (text ~ /^[]}]+$/ || depth == 0) next
        if (match(text, /^"[^"]*": /)) { key = substr(text, 2, RLENGTH - 4); text = substr(text, RLENGTH + 1) }
        else { key = ++seen[depth] - 1 }
        path[depth] = key
        if (text == "{" || text == "[") { seen[depth + 1] = 0; next }
        full = path[1]; for (i = 2; i <= depth; i++) full = full "." path[i]
        gsub(/^"|"$/, "", text); print full "=" text
    }' "$1" >"$flat"
}

get() { sed -n "s/^$1=//p" "$flat"; }

# The text of one program, from the evidence of link $1.
program() {
    exe=$(get "evidence\.chain\.$1\.exe\.sha256")
    case $exe in '' | null) exe=unreadable ;; esac
    printf 'attestd program v1\nexe %s\n' "$exe"
    [ "$(get "evidence\.chain\.$1\.script")" = null ] && return
    kind=$(get "evidence\.chain\.$1\.script\.kind")
    sha=$(get "evidence\.chain\.$1\.script\.sha256")
    case $kind/$sha in
    script/null | module/null | inline/null) printf 'unresolved\n' ;;
    script/* | inline/*) printf '%s %s\n' "$kind" "$sha" ;;
    module/*) printf 'module %s %s\n' "$(get "evidence\.chain\.$1\.script\.name")" "$sha" ;;
    *) printf '%s\n' "$kind" ;;
    esac
}

digest() { sha256sum | cut -d ' ' -f 1; }

compare() { # FILE WHAT COMPUTED STATED
    values=$((values + 1))
    if [ "$3" = "$4" ]; then
        printf '%s %s %s\n' "$1" "$2" "$3"
    else
        printf '%s %s computed %s stated %s\n' "$1" "$2" "$3" "$4"
        wrong=$((wrong + 1))
    fi
}

for file in "$@"; do
    [ -r "$file" ] || { printf 'cannot read %s\n' "$file" >&2; exit 2; }
    flatten "$file"
    name=$(basename "$file" .json)
    accountable=$(get 'expected\.accountable')
    outermost=$(get 'digests\.outermost')
    end=$(get 'digests\.end')
    index=0
    lines=
    last=
    own=
    while [ -n "$(get "evidence\.chain\.$index\.pid")" ]; do
        hex=$(program "$index" | digest)
        compare "$name" "program.$index" "$hex" "$(get "digests\.programs\.$index")"
        [ "$index" -eq "$accountable" ] && own=$hex
        class=$(get "expected\.classes\.$index")
        if [ "$index" -ge "$accountable" ] && [ "$index" -le "$outermost" ] && [ "$class" != relay ]; then
            line="link $hex uid $(get "evidence\.chain\.$index\.uids\.0")"
            [ "$line" = "$last" ] || lines="$lines$line
"
            last=$line
        fi
        index=$((index + 1))
    done
    [ -z "$end" ] || lines="${lines}end $end
"
    chain=$(printf 'attestd chain v1\n%s' "$lines" | digest)
    compare "$name" program "$own" "$(get 'expected\.program')"
    compare "$name" chain "$chain" "$(get 'expected\.chain')"
    id="spiffe://$(get trust_domain)/host/$(get host_id)/uid/$(get 'expected\.uid')"
    id="$id/program/$(printf %.40s "$own")/chain/$(printf %.40s "$chain")"
    compare "$name" spiffe "$id" "$(get 'expected\.spiffe_id')"
done
[ "$wrong" -eq 0 ] || { printf 'wrong %s of %s values\n' "$wrong" "$values"; exit 1; }
printf 'ok %s values\n' "$values"
