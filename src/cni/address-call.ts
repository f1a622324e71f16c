/** By this name the plugins that make interfaces call weft for addresses alone. */
export const ADDRESS_PLUGIN = 'weft-ipam';

/**
 * Whether the configuration is another plugin's, which asks for addresses. By what name weft was started tells
 * nothing: both names are one file.
 */
export function isAddressCall(configuration: object): boolean {
  const { type, ipam } = configuration as { readonly type?: unknown; readonly ipam?: unknown };
  if (type === 'weft') return false;
  return typeof ipam === 'object' && ipam !== null && 'type' in ipam && ipam.type === ADDRESS_PLUGIN;
}
