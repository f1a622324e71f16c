/** What the executable uses of the runtime it is compiled with: node:fs costs a call as much as the call itself. */
declare const Bun: {
  readonly stdin: { bytes(): Promise<Uint8Array> };
  readonly stdout: object;
  write(destination: object, text: string): Promise<number>;
};
