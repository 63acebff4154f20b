-- Hardware that a revocation has unbound, whatever its device is bound to since. It is kept by itself: only when somebody
-- binds it again is it forgotten.
CREATE TABLE void_hardware (
  manufacturer TEXT NOT NULL,
  serial       TEXT NOT NULL,
  PRIMARY KEY (manufacturer, serial)
) STRICT, WITHOUT ROWID;

INSERT INTO void_hardware
SELECT DISTINCT manufacturer, manufacturer_serial FROM devices WHERE manufacturer IS NOT NULL AND binding_void = 1;

CREATE TRIGGER devices_unbound AFTER UPDATE ON devices
WHEN NEW.manufacturer IS NOT NULL AND NEW.binding_void = 1
BEGIN INSERT OR IGNORE INTO void_hardware VALUES (NEW.manufacturer, NEW.manufacturer_serial); END;

CREATE TRIGGER devices_added_unbound AFTER INSERT ON devices
WHEN NEW.manufacturer IS NOT NULL AND NEW.binding_void = 1
BEGIN INSERT OR IGNORE INTO void_hardware VALUES (NEW.manufacturer, NEW.manufacturer_serial); END;

CREATE TRIGGER devices_bound_again AFTER UPDATE ON devices
WHEN NEW.manufacturer IS NOT NULL AND NEW.binding_void = 0
BEGIN DELETE FROM void_hardware WHERE manufacturer = NEW.manufacturer AND serial = NEW.manufacturer_serial; END;
