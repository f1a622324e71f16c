import type { Command } from './command.ts';
import { EXIT, UsageError } from './errors.ts';

const SHELLS = ['bash', 'zsh'] as const;

export const COMPLETION: Command = {
  words: ['completion'],
  summary: 'what makes bash or zsh complete commands, flags, pools and nodes',
  about: [
    'bash:     source <(kubectl-weft completion bash)     in ~/.bashrc',
    'zsh:      source <(kubectl-weft completion zsh)      in ~/.zshrc, after compinit',
    '',
    'For "kubectl weft" it is kubectl that completes: put kubectl_complete-weft, which comes',
    'with kubectl-weft, beside it on the PATH.',
  ].join('\n'),
  operands: [{ name: 'SHELL', values: SHELLS }],
  flags: [],
  run: async ({ operands: [text] }, { stdout }) => {
    const shell = SHELLS.find((one) => one === text);
    if (shell === undefined) {
      throw new UsageError(`completion ${text ?? ''}: it must be one of ${SHELLS.join(', ')}`);
    }
    await stdout.write(SCRIPTS[shell]);
    return EXIT.done;
  },
};

/** Both hand the words to `kubectl-weft __complete`, which answers a line for each candidate (see complete.ts). */
const SCRIPTS: Readonly<Record<(typeof SHELLS)[number], string>> = {
  bash: `# Completion of kubectl-weft for bash: source <(kubectl-weft completion bash)
_kubectl_weft() {
  local line
  COMPREPLY=()
  while IFS= read -r line; do
    [[ $line == :* ]] || COMPREPLY+=("\${line%%$'\\t'*}")
  done < <("\${COMP_WORDS[0]}" __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -F _kubectl_weft kubectl-weft
`,
  zsh: `#compdef kubectl-weft
# Completion of kubectl-weft for zsh: source <(kubectl-weft completion zsh)
_kubectl_weft() {
  local line word about
  local -a candidates
  for line in "\${(@f)$("\${words[1]}" __complete "\${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
    [[ -z $line || $line == :* ]] && continue
    word=\${line%%$'\\t'*}
    about=\${line#$word}
    candidates+=("\${word//:/\\\\:}:\${about#$'\\t'}")
  done
  [[ \${words[CURRENT]} == --*=* ]] && compset -P '*='
  _describe kubectl-weft candidates
}
compdef _kubectl_weft kubectl-weft
`,
};
