import { access, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { execa } from 'execa';

/** One certificate authority in a folder: `ca.crt` and `ca.key` there, and a pair NAME.crt, NAME.key per issue. */
export type Authority = {
  readonly directory: string;
  readonly certificateFile: string;
  /** Issues NAME.crt and NAME.key unless they are there. */
  issue(request: CertificateRequest): Promise<KeyPair>;
};

export type CertificateRequest = {
  /** The file name without ending. */
  readonly name: string;
  /** The user's name, as Kubernetes reads it. */
  readonly commonName: string;
  /** The user's groups. */
  readonly organizations?: readonly string[];
  /** Names and addresses that the holder serves under. */
  readonly hosts?: readonly string[];
};

export type KeyPair = { readonly certificateFile: string; readonly keyFile: string };

/** Opens the authority in `directory`, making it by openssl first if it is not there. */
export async function openAuthority(directory: string): Promise<Authority> {
  await mkdir(directory, { recursive: true, mode: 0o700 });
  const authority = pair(directory, 'ca');
  if (!(await exists(authority.certificateFile))) {
    await selfSign(authority, '/CN=weft-local-cluster', ['basicConstraints=critical,CA:TRUE'], []);
  }
  return {
    directory,
    certificateFile: authority.certificateFile,
    async issue(request) {
      const issued = pair(directory, request.name);
      if (await exists(issued.certificateFile)) return issued;
      const organizations = (request.organizations ?? []).map((name) => `/O=${name}`).join('');
      const names = (request.hosts ?? []).map((host) => (isAddress(host) ? `IP:${host}` : `DNS:${host}`));
      await selfSign(
        issued,
        `${organizations}/CN=${request.commonName}`,
        [
          'basicConstraints=CA:FALSE',
          'extendedKeyUsage=clientAuth,serverAuth',
          ...(names.length > 0 ? [`subjectAltName=${names.join(',')}`] : []),
        ],
        ['-CA', authority.certificateFile, '-CAkey', authority.keyFile],
      );
      return issued;
    },
  };
}

/** Makes the key pair that service-account tokens are signed with, unless it is there. */
export async function serviceAccountKeys(
  directory: string,
): Promise<{ readonly privateFile: string; readonly publicFile: string }> {
  const keys = { privateFile: join(directory, 'sa.key'), publicFile: join(directory, 'sa.pub') };
  if (!(await exists(keys.publicFile))) {
    await execa('openssl', ['ecparam', '-name', 'prime256v1', '-genkey', '-noout', '-out', keys.privateFile]);
    await execa('openssl', ['ec', '-in', keys.privateFile, '-pubout', '-out', keys.publicFile]);
  }
  return keys;
}

/** Writes a kubeconfig that holds its certificates itself, so that it may be copied anywhere. */
export async function writeKubeconfig(
  file: string,
  server: string,
  authority: Authority,
  user: KeyPair,
): Promise<string> {
  const embedded = async (path: string) => (await readFile(path)).toString('base64');
  const cluster = { server, 'certificate-authority-data': await embedded(authority.certificateFile) };
  const credentials = {
    'client-certificate-data': await embedded(user.certificateFile),
    'client-key-data': await embedded(user.keyFile),
  };
  const config = {
    apiVersion: 'v1',
    kind: 'Config',
    clusters: [{ name: 'weft', cluster }],
    users: [{ name: 'user', user: credentials }],
    contexts: [{ name: 'weft', context: { cluster: 'weft', user: 'user' } }],
    'current-context': 'weft',
  };
  await writeFile(file, `${JSON.stringify(config, null, 2)}\n`, { mode: 0o600 });
  return file;
}

const pair = (directory: string, name: string): KeyPair => ({
  certificateFile: join(directory, `${name}.crt`),
  keyFile: join(directory, `${name}.key`),
});

/** The certificate gets its name last, by rename: where it is, its key is too. */
async function selfSign(
  target: KeyPair,
  subject: string,
  extensions: readonly string[],
  signer: readonly string[],
): Promise<void> {
  const unfinished = `${target.certificateFile}.unfinished`;
  await execa('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '3650'],
    ...['-subj', subject, '-keyout', target.keyFile, '-out', unfinished, ...signer],
    ...extensions.flatMap((extension) => ['-addext', extension]),
  ]);
  await rename(unfinished, target.certificateFile);
}

const isAddress = (host: string) => host.includes(':') || /^[0-9.]+$/.test(host);

async function exists(path: string): Promise<boolean> {
  return access(path).then(
    () => true,
    () => false,
  );
}
