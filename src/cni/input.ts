import { InputOutputError, UndecodableInputError } from './error.ts';
import { MAX_INPUT_BYTES } from './protocol.ts';

/**
 * Everything on stdin, as text. A byte order mark stays: it is not JSON, and is refused as such later.
 * @throws UndecodableInputError for more than 1 MiB, or for what is not UTF-8
 * @throws InputOutputError
 */
export async function readInput(): Promise<string> {
  const bytes = await readBytes();
  if (bytes.length > MAX_INPUT_BYTES) {
    throw new UndecodableInputError(
      `the network configuration on stdin has ${bytes.length} bytes, more than ${MAX_INPUT_BYTES}`,
    );
  }
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch (cause) {
    throw new UndecodableInputError('the network configuration on stdin is not UTF-8', { cause });
  }
}

async function readBytes(): Promise<Uint8Array> {
  try {
    return await Bun.stdin.bytes();
  } catch (cause) {
    throw new InputOutputError('cannot read the network configuration from stdin', { cause });
  }
}
