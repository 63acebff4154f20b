-- Which piece of hardware a device is, by its manufacturer's certificate. One piece is one device, unless the binding is
-- void; and it is void once the device is revoked.
ALTER TABLE devices ADD COLUMN manufacturer TEXT;
ALTER TABLE devices ADD COLUMN manufacturer_serial TEXT;
ALTER TABLE devices ADD COLUMN binding_void INTEGER NOT NULL DEFAULT 0;

CREATE INDEX devices_by_hardware ON devices (manufacturer, manufacturer_serial) WHERE manufacturer IS NOT NULL;
CREATE UNIQUE INDEX devices_one_is_bound ON devices (manufacturer, manufacturer_serial)
WHERE manufacturer IS NOT NULL AND binding_void = 0;

CREATE TRIGGER devices_revoked_are_not_bound BEFORE UPDATE ON devices
WHEN NEW.state = 'revoked' AND NEW.manufacturer IS NOT NULL AND NEW.binding_void = 0
BEGIN SELECT RAISE(ABORT, 'a revoked device is not bound to its hardware'); END;
