import type { Clock, Random } from '../ipam/index.ts';
import type { ExitCode } from './errors.ts';

/** One command of `kubectl weft`. */
export interface Command {
  /** How it is called, behind the program's name. */
  readonly words: readonly string[];
  /** One line for the list of commands. */
  readonly summary: string;
  /** What its help says beside, in lines of at most 80 characters. */
  readonly about: string;
  readonly operands: readonly Operand[];
  readonly flags: readonly Flag[];
  /** Answers the exit code; what it cannot do it throws. */
  readonly run: (call: Call, world: World) => Promise<ExitCode>;
}

/** A word that says what the command is about. */
export interface Operand {
  readonly name: string;
  readonly isOptional?: boolean;
  /** Takes as many words as there are. */
  readonly isRepeated?: boolean;
  readonly values?: Values;
}

export interface Flag {
  readonly name: string;
  /** One letter. */
  readonly short?: string;
  /** What its value is called in the help; absent: it is a switch. */
  readonly value?: string;
  readonly about: string;
  readonly values?: Values;
}

/** What a word may be, for completion: these words, or the names of objects in the cluster. */
export type Values = readonly string[] | 'pools' | 'nodes' | 'namespaces';

/** A command line, read: every flag is one of the command's, and the number of operands is right. */
export interface Call {
  readonly operands: readonly string[];
  /** The value of a flag; undefined if it is absent. */
  text(flag: string): string | undefined;
  /** Whether a switch is set. */
  isSet(flag: string): boolean;
}

/** All that a command reaches beside the cluster. */
export interface World {
  readonly stdout: Output;
  readonly stderr: Output;
  readonly env: Readonly<Record<string, string | undefined>>;
  readonly clock: Clock;
  readonly random: Random;
  /** Who calls: user@host. */
  readonly person: string;
  /** Aborts when the caller does not want to wait any longer. */
  readonly signal: AbortSignal;
}

export interface Output {
  /** Resolves when the text has been handed over. */
  write(text: string): Promise<void>;
  readonly isTerminal: boolean;
  /** The width of the terminal. */
  readonly columns: number;
}
